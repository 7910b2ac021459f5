"""`python -m fairweather`, the same as the command `fairweather`."""

from fairweather.cli import main

main()
