"""The care-plan data exchange standard (ケアプランデータ連携標準仕様), as tables and pure rules.

* `relay.standard.kinds` - the file kinds, read from ``kinds.csv``;
* `relay.standard.layouts` - the items of every record, read from ``layout.csv``;
* `relay.standard.versions` - the editions and their service months, read from ``versions.csv``;
* `relay.standard.services` - service type codes, read from ``services.csv``;
* `relay.standard.offices` - office numbers and their check digit;
* `relay.standard.serials` - months and serials as real dates;
* `relay.standard.names` - the grammar of file names, in the forms of 3.2 and 4.1;
* `relay.standard.units` - which files together are a sending unit, and what one lacks, from ``units.csv``;
* `relay.standard.making` - conforming units made up for trials, from `relay.standard.invented` people and offices and
  the records of `relay.standard.madeup`;
* `relay.standard.checks` - what is asked of the content of a file: read by one of `relay.standard.readers`, judged at
  the `relay.standard.desk`;
* `relay.standard.reasons` - why a name is refused, in words for a clerk.

A table of the standard is data beside the module that reads it, so that a new edition is a new row.  Nothing
here knows a register, a clock, a connection or an operator's settings; the tables are read once, at import.
"""
