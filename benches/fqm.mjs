// Times fqm-execution on published measures: node fqm.mjs FOLDER MEASURE..., each with its own test patients.
// The first calculation of each measure warms up and is not counted. Prints `RESULT measure patients cpu-seconds` a line.
import fs from "fs";
import zlib from "zlib";
import { createRequire } from "module";
const { Calculator } = createRequire(process.env.WATERSHED_FQM + "/")("fqm-execution");
const PATIENTS_MAX = 15;
const read = (file) => zlib.gunzipSync(fs.readFileSync(file)).toString("utf8");
const say = console.log;
console.log = console.warn = console.error = () => {};
const [folder, ...measures] = process.argv.slice(2);
for (const name of measures) {
  const measure = JSON.parse(read(`${folder}/${name}/measure.json.gz`));
  const cases = read(`${folder}/${name}/cases.ndjson.gz`).trim().split("\n").slice(0, PATIENTS_MAX).map((line) => JSON.parse(line));
  const bundle = ({ resources }) => ({ resourceType: "Bundle", type: "collection", entry: resources.map((resource) => ({ resource })) });
  const patients = cases.map(bundle);
  const { start, end } = cases[0].expected[0].period;
  const options = { measurementPeriodStart: start, measurementPeriodEnd: end, calculateHTML: false, calculateSDEs: false, verboseCalculationResults: false };
  try {
    await Calculator.calculate(measure, patients.slice(0, 2), options);
    const before = process.cpuUsage();
    const { results } = await Calculator.calculate(measure, patients, options);
    const used = process.cpuUsage(before);
    say(`RESULT ${name} ${results.length} ${(used.user + used.system) / 1e6}`);
  } catch {
    say(`RESULT ${name} 0 0`);
  }
}
