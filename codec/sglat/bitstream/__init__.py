"""The file: chunks, header, identity, motion, reader, writer, edits. numpy and msgpack, never torch."""
