"""The cycle: one experiment from the first idea to the verdict, and the endless loop around it."""
