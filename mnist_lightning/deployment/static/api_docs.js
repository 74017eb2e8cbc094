// Lists what openapi.json describes.
"use strict";

const $ = (id) => document.getElementById(id);
$("example").textContent = `curl --data-binary @seven.png ${location.origin}/api/predict`;

function element(name, text) {
  const made = document.createElement(name);
  made.textContent = text;
  return made;
}

function fields(schema, all) {
  const name = schema?.$ref?.split("/").pop();
  if (!name) return schema?.items ? `a list, each of ${fields(schema.items, all)}` : "";
  const parts = Object.entries(all[name].properties).map(([field, of]) => {
    const inner = of.items?.$ref ? `: ${fields(of.items, all)}` : "";
    return `${field}${inner}`;
  });
  return `${name} {${parts.join(", ")}}`;
}

async function list() {
  const api = await (await fetch("openapi.json")).json();
  for (const [path, methods] of Object.entries(api.paths)) {
    for (const [method, operation] of Object.entries(methods)) {
      const section = document.createElement("section");
      section.append(element("h2", `${method.toUpperCase()} ${path}`), element("p", operation.description));
      for (const each of operation.parameters ?? []) {
        const kinds = each.schema.enum ?? [each.schema.type ?? "text"];
        section.append(element("p", `?${each.name}= ${kinds.join(" | ")}`));
      }
      const good = Object.values(operation.responses)[0].content?.["application/json"]?.schema;
      const told = fields(good, api.components.schemas);
      if (told) section.append(element("p", `answer: ${told}`));
      $("paths").append(section);
    }
  }
}
list();
