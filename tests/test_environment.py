"""The environment check against made-up locks."""

import importlib.metadata

import pytest

from reasonrank import environment

NUMPY = importlib.metadata.version("numpy")


def check(tmp_path, *lines: str):
    lock = tmp_path / "lock.txt"
    lock.write_text("\n".join(lines) + "\n")
    return environment.check(lock)


def test_the_machine_and_the_packages_that_the_project_names(tmp_path):
    found = check(tmp_path, "# a comment", f"numpy=={NUMPY}  # via something", "pandas==0.0.1")
    assert list(found.columns) == ["here", "expected", "status"]
    assert list(found.index[:7]) == ["Python", "system", "cores", "memory", "free disk", "GPU", "engine"]
    assert found.loc["numpy"].tolist() == [NUMPY, NUMPY, "ok"]
    assert found.loc["pandas", "status"] == "differs"
    assert found.loc["other packages"].tolist() == ["0 as pinned", "0 pins", "ok"]


def test_other_packages_share_a_line_that_names_what_differs(tmp_path):
    found = check(
        tmp_path, "no-such-package-at-all==1.0", "packaging==0.0.1", f"pluggy=={_version('pluggy')}"
    )
    line = found.loc["other packages"]
    assert line["here"] == f"no-such-package-at-all missing, packaging {_version('packaging')}"
    assert (line["expected"], line["status"]) == ("3 pins", "differs")


def test_a_local_version_label_is_no_difference(tmp_path):
    torch = importlib.metadata.version("torch")
    found = check(tmp_path, f"torch=={torch.split('+')[0]}")
    assert found.loc["torch", "status"] == "ok"


def test_pins_for_other_systems_do_not_count(tmp_path):
    found = check(tmp_path, "numpy==0.0.1 ; sys_platform == 'no such system'", "--only-binary :all:")
    assert "numpy" not in found.index


@pytest.mark.parametrize("line", ["numpy>=2", "numpy", "numpy 2"])
def test_a_line_that_is_no_pin_is_named(tmp_path, line):
    with pytest.raises(ValueError, match=rf"lock.txt, line 2: '{line}', expected a pin"):
        check(tmp_path, "# first", line)


def test_nothing_in_the_table_is_a_path_or_the_hosts_name(tmp_path):
    import platform

    text = check(tmp_path).to_string()
    assert str(tmp_path) not in text and "/home" not in text and platform.node() not in text.split()


def _version(name: str) -> str:
    return importlib.metadata.version(name)
