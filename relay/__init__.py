"""The care-plan relay: an SFTP server that routes each file by its name, whole, once, to one office."""

__version__ = "0.1.0"
