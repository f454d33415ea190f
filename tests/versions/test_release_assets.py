"""Files of a release by the names that Tauri's bundler gives them."""

import pytest

from domain.release_assets import Files, by_platform

TAURI = [
    "Sage_1.0.0_aarch64.dmg",
    "Sage_1.0.0_x64.dmg",
    "Sage_aarch64.app.tar.gz",
    "Sage_aarch64.app.tar.gz.sig",
    "Sage_x64.app.tar.gz",
    "Sage_x64.app.tar.gz.sig",
    "Sage_1.0.0_x64-setup.exe",
    "Sage_1.0.0_x64-setup.exe.sig",
    "Sage_1.0.0_x64_en-US.msi",
    "Sage_1.0.0_x64_en-US.msi.sig",
    "sage_1.0.0_amd64.AppImage",
    "sage_1.0.0_amd64.AppImage.sig",
    "sage_1.0.0_amd64.deb",
    "sage_1.0.0_arm64.deb",
    "sage-1.0.0-1.x86_64.rpm",
    "latest.json",
    "Source code (zip)",
]


def test_a_whole_release() -> None:
    assert by_platform(TAURI) == {
        "darwin-aarch64": Files("Sage_1.0.0_aarch64.dmg", "Sage_aarch64.app.tar.gz"),
        "darwin-x86_64": Files("Sage_1.0.0_x64.dmg", "Sage_x64.app.tar.gz"),
        "linux-aarch64": Files("sage_1.0.0_arm64.deb", ""),
        "linux-x86_64": Files("sage_1.0.0_amd64.AppImage", "sage_1.0.0_amd64.AppImage"),
        "windows-x86_64": Files("Sage_1.0.0_x64-setup.exe", "Sage_1.0.0_x64-setup.exe"),
    }


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["A_universal.dmg"], {p: Files("A_universal.dmg") for p in ("aarch64", "x86_64")}),
        (["A_x64.nsis.zip", "A_x64.nsis.zip.sig"], {"x86_64": Files("", "A_x64.nsis.zip")}),
        (["A_x64.nsis.zip"], {}),
        (["A_x64.nsis.zip.sig"], {}),
        (["A.dmg"], {}),
        (["xarm64y.dmg"], {}),
        ([], {}),
    ],
)
def test_one_kind(names: list[str], expected: dict[str, Files]) -> None:
    found = by_platform(names)
    assert {platform.partition("-")[2]: files for platform, files in found.items()} == expected
