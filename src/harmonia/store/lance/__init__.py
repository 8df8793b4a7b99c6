"""The embedded store on LanceDB, in one local folder."""
