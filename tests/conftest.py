"A JupyterLab and a Chromium for the tests marked `browser`"

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path

import pytest

# a job in the background ignores Ctrl-C, and nohup a closed terminal; so would every training that a test starts
signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP"):  # not on Windows
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

# a machine that only checks the GPU may lack what other tests are made with (pip install 'toon2real[dev]')
NEEDS = {
    "hypothesis": ["test_properties.py"],
    "anywidget": ["test_patchwise.py", "test_monitor.py", "test_picker.py", "test_watch.py", "test_widgets.py"],
    "nbformat": ["test_monitor.py", "test_picker.py", "test_watch.py", "test_widgets.py", "test_packaging.py"],
}
LACKING = [package for package in NEEDS if find_spec(package) is None]
collect_ignore = [file for package in LACKING for file in NEEDS[package]]


def pytest_report_header():
    return [f"{package} is not installed: without {', '.join(NEEDS[package])}" for package in LACKING]


CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
BROWSERS = ["chromium", "chromium-browser", "google-chrome"]  # as .ci/run looks for them
CHROMIUM = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)
SETTINGS = {
    "jupyterlab": [
        "--IdentityProvider.token=",
        "--ServerApp.password=",
        "--ServerApp.port_retries=0",
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
        "--LabApp.extension_manager=readonly",
        "--LabApp.expose_app_in_browser=True",  # a test may change the theme
    ],
    "notebook": ["--NotebookApp.token=", "--NotebookApp.password=", "--NotebookApp.port_retries=0"],
}


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_for_server(url: str, server: subprocess.Popen, log: Path):
    for _ in range(300):
        if server.poll() is not None:
            break
        with suppress(OSError):
            urllib.request.urlopen(url + "/api/status", timeout=1)
            return
        time.sleep(0.2)
    pytest.fail("JupyterLab did not start\n" + log.read_text()[-3000:])


@contextmanager
def jupyter(python: str = sys.executable, module: str = "jupyterlab"):
    "A Jupyter on loopback with settings of its own: (its address, the folder it shows)"
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        notebooks = home / "notebooks"
        notebooks.mkdir()
        quiet = home / "settings/@jupyterlab/apputils-extension/notification.jupyterlab-settings"
        quiet.parent.mkdir(parents=True)
        quiet.write_text('{"fetchNews": "false", "checkForUpdates": false}')
        folders = {
            "HOME": home,
            "JUPYTER_CONFIG_DIR": home / "config",
            "JUPYTER_DATA_DIR": home / "data",
            "JUPYTER_RUNTIME_DIR": home / "run",
            "IPYTHONDIR": home / "ipython",
            "JUPYTERLAB_SETTINGS_DIR": home / "settings",
            "JUPYTERLAB_WORKSPACES_DIR": home / "workspaces",
        }
        port = free_port()
        command = [python, "-m", module, "--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}"]
        log = home / "log"
        environment = os.environ | {key: str(folder) for key, folder in folders.items()}
        with log.open("w") as out:
            server = subprocess.Popen(
                [*command, *SETTINGS[module], f"--notebook-dir={notebooks}"],
                env=environment,
                stdout=out,
                stderr=out,
            )
        url = f"http://127.0.0.1:{port}"
        try:
            wait_for_server(url, server, log)
            yield url, notebooks
        finally:
            server.terminate()
            server.wait(20)


@pytest.fixture(scope="session")
def needs_chromium():
    "Without Chromium what needs one is skipped"
    pytest.importorskip("playwright.sync_api")
    if not CHROMIUM:
        pytest.skip("no Chromium")


@pytest.fixture(scope="session")
def lab(needs_chromium):
    "A JupyterLab: (its address, the folder it shows)"
    pytest.importorskip("jupyterlab")
    with jupyter() as where:
        yield where


@contextmanager
def chromium():
    "A page of a Chromium with a fresh profile; an error of a script is raised at the end"
    from playwright.sync_api import sync_playwright

    errors = []
    with tempfile.TemporaryDirectory() as profile, sync_playwright() as driver:
        context = driver.chromium.launch_persistent_context(
            profile,
            executable_path=CHROMIUM,
            args=CHROMIUM_FLAGS,
            viewport={"width": 1300, "height": 1000},
            accept_downloads=True,
        )
        page = context.pages[0]
        page.set_default_timeout(60_000)
        page.on("pageerror", lambda error: errors.append(str(error)))
        yield page
        context.close()
    assert not errors, errors


@pytest.fixture
def page(needs_chromium):
    "A Chromium page; an error in the console fails the test"
    errors = []
    with chromium() as page:
        page.on("console", lambda said: said.type == "error" and errors.append(said.text))
        yield page
    assert not errors, errors
