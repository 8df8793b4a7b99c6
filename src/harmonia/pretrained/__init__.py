"""Other people's models, one file per family, loaded by hub name or local folder."""
