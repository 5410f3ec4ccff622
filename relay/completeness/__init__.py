"""Completeness: whether the end of a file is there, by format.

An *ending* is fed a file in order, in pieces of any size, and then says what is missing at the end of it, if
anything.  It holds a bounded part of the file, whatever comes, and gives the same answer however the file was split.

In doubt nothing is missing.  A file that keeps to its format is never called cut; of one that does not, only as much
is said as can be told.  Whether a file is right beyond its end is not looked at here.

Bytes are looked at by C-level operations on whole pieces, never by a loop over bytes: a piece of a CSV costs one
count of its quotation marks and a look at its ends.
"""

from relay.completeness.documents import PdfEnding, ZipEnding
from relay.completeness.ending import Cut, Ending
from relay.completeness.markup import JsonEnding, XmlEnding
from relay.completeness.pictures import JpegEnding, PngEnding
from relay.completeness.tables import CsvEnding

__all__ = ["CsvEnding", "Cut", "Ending", "JpegEnding", "JsonEnding", "PdfEnding", "PngEnding", "XmlEnding", "ZipEnding"]
