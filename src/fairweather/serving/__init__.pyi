from .app import create_app as create_app
from .limits import Limits as Limits
from .run import log_as_json as log_as_json
from .run import serve as serve
from .service import Service as Service
from .studio import Studio as Studio
from .workplace import private_folder as private_folder
