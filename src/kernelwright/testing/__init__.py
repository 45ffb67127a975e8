"""Public conformance suites and fakes; needs pytest, never imported by the rest.

Subclass a suite in your own tests and give what it asks for:

- `strategies.StrategyConformance`, with `strategies.drive` to run a strategy on made-up outcomes
- `proposers.ProposerConformance`, with the fake `proposers.ScriptedProposer`
- `builders.BuilderConformance`, with the fake `builders.FakeBuilder`
- `stores.StoreConformance`
- `agents`: a small task for models, and a question of every role about it
- `models.ScriptedModel`, and `models.ScriptedServer`, which speaks OpenAI's protocol over HTTP

`samples` has a record of every kind, `landscapes` has search spaces whose outcomes are known,
`noise` has simulated machines to time on.
"""
