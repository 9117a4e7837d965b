"""How much work something was: the processor's time, which is the same on a machine that does other things too."""

import resource


def done() -> float:
    """The seconds that this process has worked, and all that it started and that is over."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)
