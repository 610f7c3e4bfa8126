"""What each command of `hiva` does, one file a command. Heavy imports wait until a command runs."""
