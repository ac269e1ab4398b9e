"""Checks the audit log with Go's own packages for its checksum database, which lie in the Go toolchain from PyPI."""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

import go

here = pathlib.Path(__file__).parent
root = pathlib.Path(go.__file__).parent
with tempfile.TemporaryDirectory() as folder:
    module = pathlib.Path(folder)
    # The toolchain's own copies: nothing is downloaded.
    for name in ("note", "tlog"):
        shutil.copytree(root / "src/cmd/vendor/golang.org/x/mod/sumdb" / name, module / "sumdb" / name)
    for copied in module.rglob("*_test.go"):
        copied.unlink()
    for copied in module.rglob("*.go"):
        copied.write_text(copied.read_text().replace('"golang.org/x/mod/sumdb/', '"check/sumdb/'))
    shutil.copy(here / "audit_log.go", module / "main.go")
    (module / "go.mod").write_text("module check\n\ngo 1.24\n")
    home = os.environ | {"GOROOT": str(root), "GOFLAGS": "-mod=mod", "GOPROXY": "off", "GOTOOLCHAIN": "local", "GOCACHE": str(module / "cache"),
                         "GOPATH": str(module / "path"), "CGO_ENABLED": "0"}
    run = subprocess.run([root / "bin/go", "run", ".", sys.argv[1], json.dumps(json.loads(sys.argv[2]))], cwd=module, env=home)
    sys.exit(run.returncode)
