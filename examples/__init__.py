"""Things to try Harmonia on."""
