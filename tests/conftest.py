"""What holds for all tests."""

from hypothesis import settings

# The same examples in every run, however long one takes on cores that other work shares. To look for new
# ones: pytest --hypothesis-profile explore
settings.register_profile("codegym", deadline=None, derandomize=True)
settings.register_profile("explore", deadline=None)
settings.load_profile("codegym")
