"""The only room that touches files: one file a kind of what is stored."""

from workbench.storage.documents import (
    create_json,
    csv_columns,
    read_csv,
    read_json,
    read_json_lines,
    read_toml,
    write_json,
)
from workbench.storage.figures import can_draw_images, drawing, picture, write_figure
from workbench.storage.files import (
    fingerprint,
    mapped,
    move,
    read_bytes,
    read_text,
    replacing,
    unpack,
    write_bytes,
    write_text,
)
from workbench.storage.folders import (
    awaited,
    locked,
    make_folder,
    remove_folder,
    require_writable,
    scratch,
    scratch_of_this_process,
    size_of,
    whole_folder,
)
from workbench.storage.paths import PathLike, existing, expanded, package_path
from workbench.storage.tables import read_table, write_table
from workbench.storage.tensors import map_tensor, read_tensors, write_tensors

__all__ = [
    "PathLike",
    "awaited",
    "can_draw_images",
    "create_json",
    "csv_columns",
    "drawing",
    "existing",
    "expanded",
    "fingerprint",
    "locked",
    "make_folder",
    "map_tensor",
    "mapped",
    "move",
    "package_path",
    "picture",
    "read_bytes",
    "read_csv",
    "read_json",
    "read_json_lines",
    "read_table",
    "read_tensors",
    "read_text",
    "read_toml",
    "remove_folder",
    "replacing",
    "require_writable",
    "scratch",
    "scratch_of_this_process",
    "size_of",
    "unpack",
    "whole_folder",
    "write_bytes",
    "write_figure",
    "write_json",
    "write_table",
    "write_tensors",
    "write_text",
]
