"""The networks under MASA's adapter, each giving the maps of one picture batch; taken from their packages."""
