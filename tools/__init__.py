"""Scripts of development, none of them part of the package."""
