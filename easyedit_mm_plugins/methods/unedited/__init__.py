"""The base model as it is: the row that every table starts with."""

from ..entries import METHODS

METHODS.add(
    name="unedited", title="Unedited", order=0, editor="easyedit_mm_plugins.methods.base:Unedited"
)
