"""Reading documents: a killable child process and the formats that it knows."""
