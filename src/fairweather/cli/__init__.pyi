from .commands import app as app
from .commands import run_command as run_command
from .console import counting as counting
from .entry import interrupts_kept as interrupts_kept
from .entry import main as main
from .options import parse_size as parse_size
