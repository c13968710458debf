"""The rooms of the static audit: what each rule looks for in the source of a script."""
