"""The file: chunks, header, identity, motion, reader, writer, edits. Never imports torch.

What reads, writes or checks bytes raises FormatError at the first fault, with a code of SPEC.md
section 14; functions list other errors, and those codes that mean something special there.
"""
