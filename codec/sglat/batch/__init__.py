"""Many files by one command: lists, what is done already, processes or Ray, one line a file."""
