"""The programs: arguments, one call for each file, printed results."""
