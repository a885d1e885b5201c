"""Who may use the service: keys, hosts, origins, proxies. No file here knows a job."""
