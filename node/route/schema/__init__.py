"""A JSON schema of rule files, so that editors complete and explain while a rule is written."""

from node.route.schema.document import schema

__all__ = ["schema"]
