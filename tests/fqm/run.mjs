// Runs fqm-execution over what the test has written: node run.mjs JOBS.json, with jobs [{bundle, start, end, patients}].
// Prints one line of JSON a job: per patient and group the members of each population.
import fs from "fs";
import { createRequire } from "module";
const { Calculator } = createRequire(process.env.WATERSHED_INTEROP_FQM + "/")("fqm-execution");
for (const job of JSON.parse(fs.readFileSync(process.argv[2], "utf8"))) {
  const options = { measurementPeriodStart: job.start, measurementPeriodEnd: job.end, calculateHTML: false, calculateSDEs: false, calculateClauseCoverage: false };
  const found = {};
  for (const [patient, bundle] of Object.entries(job.patients)) {
    try {
      const { results } = await Calculator.calculate(job.bundle, [bundle], options);
      const group = results[0].detailedResults[0];
      const counts = {};
      const add = (population) => { counts[population.populationType] = (counts[population.populationType] ?? 0) + (population.result ? 1 : 0); };
      if (group.episodeResults) group.episodeResults.forEach((episode) => episode.populationResults.forEach(add));
      else group.populationResults.forEach(add);
      found[patient] = counts;
    } catch (fault) {
      found[patient] = { fault: String(fault.stack ?? fault).slice(0, 600) };
    }
  }
  console.log("RESULT " + JSON.stringify(found));
}
