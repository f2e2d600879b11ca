"""The commands of `dlaws` that need more than a few lines; `cli.py` is the front door."""
