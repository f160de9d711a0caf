"""The command line: parse, call one function, print.

>>> from cellfleet.cli.exit_codes import ExitCode
>>> int(ExitCode.REFUSED)
3
"""
