"""Stands in for setuptools where pip wants the metadata of an archive that is only unpacked."""
