"""The demo's application: its databases, files and folders, and the config that points bulkops at them."""
