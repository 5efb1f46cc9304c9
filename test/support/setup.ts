// What a developer's shell says must not change what a test sees.
for (const key of Object.keys(process.env)) {
  if (/^(AGENTCTL_(?!TEST_|REQUIRE_|KEEP_)|OTEL_|COMPOSE_|FORCE_COLOR$)/.test(key)) delete process.env[key]
}
process.env['NO_COLOR'] = '1'
process.env['TZ'] = 'UTC'
