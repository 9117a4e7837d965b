"""Running a notebook: its parameters checked, its secrets masked, the executed notebook kept, the outcome recorded."""
