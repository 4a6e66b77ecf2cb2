"""Label Studio: what reviewers see, the server it is sent to, and the answers that come back."""
