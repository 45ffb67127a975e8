"""Which target a command runs on, and what it says where that is not here."""

from dataclasses import replace

import pytest

from kernelwright.campaign.loop import runs_on
from kernelwright.cli import main
from kernelwright.cli.options import check_target, target_of
from kernelwright.cuda_driver import missing_gpu
from kernelwright.errors import UserError
from kernelwright.model import Family, Lineage
from kernelwright.testing import samples

KERNEL = 'extern "C" int kernel(void) { return 0; }\n'


def test_languages_and_targets_that_do_not_go_together_are_named():
    assert check_target("cuda", "cuda") == check_target("cuda") == target_of("cuda", None)
    assert target_of("python", None) == target_of("cpp", "cpu") == "cpu"
    with pytest.raises(UserError, match="only cpu and cuda"):
        check_target("tpu")
    with pytest.raises(UserError, match="no language 'cpp' for cuda"):
        check_target("cuda", "cpp")
    with pytest.raises(UserError, match="a kernel in cuda runs on cuda, not on cpu"):
        target_of("cuda", "cpu")


def test_a_campaign_keeps_families_of_its_target():
    gpu = Family("f", "cuda", "kernel", "", Lineage("test"))
    assert [runs_on(gpu, "cuda"), runs_on(gpu, "cpu")] == [True, False]
    assert [runs_on(samples.family(), "cuda"), runs_on(samples.family(), "cpu")] == [False, True]


def test_a_gpu_is_called_by_its_name():
    machine = samples.machine()
    assert machine.named("cpu") == machine.named("cuda") == machine.name

    with_gpu = replace(machine, gpu=samples.gpu())
    assert (with_gpu.named("cpu"), with_gpu.named("cuda")) == (machine.name, "nvidia-h200")


@pytest.mark.skipif(missing_gpu() is None, reason="there is a GPU")
@pytest.mark.parametrize("command", [["evaluate", "rms_norm"], ["optimize", "--like", "rms_norm"]])
def test_without_a_gpu_there_is_one_sentence(command, tmp_path, capsys):
    file = tmp_path / "mine.cu"
    file.write_text(KERNEL)
    with pytest.raises(SystemExit) as ended:
        main([*command, str(file)])
    said = capsys.readouterr().err
    assert ended.value.code == 2
    assert "the target cuda cannot be used here: no NVIDIA GPU" in said
    assert "Traceback" not in said
