from .app import create_app as create_app
from .limits import Limits as Limits
from .run import log_as_json as log_as_json
from .run import serve as serve
from .studio import Studio as Studio
