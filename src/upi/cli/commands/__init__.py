"""The commands, one file each: a module here that declares one is all that a new command takes."""
