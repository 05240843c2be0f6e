"""Release: the one directory a user cites and loads without this platform. Nothing is measured here, only written
down."""
