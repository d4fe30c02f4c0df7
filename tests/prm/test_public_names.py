import inspect

import prm


def test_all_names_are_the_public_members() -> None:
    members = {
        name for name, value in vars(prm).items() if not name.startswith("_") and not inspect.ismodule(value)
    }
    assert set(prm.__all__) == members
    assert list(prm.__all__) == sorted(
        prm.__all__, key=lambda name: (not name.isupper(), not name[0].isupper(), name)
    )


def test_the_documented_imports_work() -> None:
    from prm import BinarySearchLabeler, ProcessRewardModel, train_prm

    assert inspect.isclass(BinarySearchLabeler)
    assert inspect.isclass(ProcessRewardModel)
    assert callable(train_prm)
