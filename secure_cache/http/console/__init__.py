"""The auditor's console at `/audit/`: pages made on the server, without anything from elsewhere."""
