"""The commands for the bot, its chats and the deliveries."""

from typing import Annotated

import typer

from pulse import settings

telegram = typer.Typer(no_args_is_help=True, help="The bot and its chats.")
deliveries = typer.Typer(help="The messages that were sent, and those that need attention.")
app = typer.Typer()
app.add_typer(telegram, name="telegram")
app.add_typer(deliveries, name="deliveries")


@telegram.command("chats")
def telegram_chats() -> None:
    """List the chats that recently wrote to the bot, with their ids for TELEGRAM_…_CHATS."""
    from pulse.delivery import unrecorded

    found = unrecorded.heard_from()
    if not found:
        typer.echo("Nobody wrote to the bot recently: send it a message, or mention it in the group, and try again.")
    for chat, name in found:
        typer.echo(f"{chat}  {name}")


@telegram.command("test", context_settings={"ignore_unknown_options": True})
def telegram_test(
    chat: Annotated[str, typer.Argument(help="A chat id, or id/thread; ids of groups are negative.")],
) -> None:
    """Send a test message to a chat, and say what is wrong if it does not arrive."""
    from pulse.delivery import unrecorded

    typer.echo(unrecorded.check(chat))


@deliveries.callback(invoke_without_command=True)
def deliveries_pending(
    context: typer.Context,
    of: Annotated[
        str, typer.Option("--date", help="All deliveries of an event date: an ISO date, or the word yesterday.")
    ] = "",
) -> None:
    """Without a command: list the deliveries that need attention, or all of a day, with their references."""
    from pulse.delivery import settling

    if context.invoked_subcommand:
        return
    if of:
        day = settings.load().event_day(of)
        found, none = settling.of_day(day), f"Nothing was sent for {day}."
    else:
        found, none = settling.pending(), "No delivery needs attention."
    if not found:
        typer.echo(none)
    for each in found:
        typer.echo(f"{each.ref}  {each.event_date}  {each.report}  chat {each.chat}  {each.state}")
        if each.error:
            typer.echo(f"    {each.error}")


@deliveries.command("arrived")
def deliveries_arrived(
    ref: Annotated[str, typer.Argument(help="The delivery's reference, or its first characters.")],
    message: Annotated[str, typer.Option(help="The message's id or link, so that it can be corrected later.")] = "",
) -> None:
    """Settle an unknown delivery: the message is in the chat."""
    from pulse.delivery import settling

    done = settling.arrived(ref, message)
    typer.echo(f"{done.report} of {done.event_date} is in chat {done.chat}.")


@deliveries.command("resend")
def deliveries_resend(
    ref: Annotated[str, typer.Argument(help="The delivery's reference, or its first characters.")],
) -> None:
    """Settle an unknown delivery: the message is not in the chat, or should be sent again."""
    from pulse.delivery import settling

    done = settling.resend(ref)
    typer.echo(
        f"Clear the task `deliver` of {done.report} for {done.event_date}: it sends a new message to chat {done.chat}."
    )


@deliveries.command("dismiss")
def deliveries_dismiss(
    ref: Annotated[str, typer.Argument(help="The delivery's reference, or its first characters.")],
) -> None:
    """Take a failed delivery off the list, such as one to a chat that is no longer in the settings."""
    from pulse.delivery import settling

    done = settling.dismiss(ref)
    typer.echo(
        f"{done.report} of {done.event_date} to chat {done.chat} is off the list; a later run may still send it."
    )
