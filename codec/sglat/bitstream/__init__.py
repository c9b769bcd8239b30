"""The file: chunks, header, identity, motion, reader, writer, edits. Never imports torch."""
