from .errors import FairweatherError as FairweatherError
from .models import create_model as create_model
from .models import list_models as list_models
from .models import load_model as load_model
from .restoration import Restorer as Restorer
from .restoration import classify_degradation as classify_degradation
from .restoration import restore as restore

__version__: str

def classify_damage(image: object) -> dict[str, float]: ...
