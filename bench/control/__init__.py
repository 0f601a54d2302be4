"""Programs that show how deferpost behaves when it has too much to do, beside how fast it is."""
