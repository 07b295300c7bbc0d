"""VOTables, streamed, by our own rules about strangers' XML."""
