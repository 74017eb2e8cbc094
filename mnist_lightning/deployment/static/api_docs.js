// Lists the requests that openapi.json describes.
"use strict";

const $ = (id) => document.getElementById(id);
const address = `${location.origin}/api/predict`;
$("example").textContent = `curl --data-binary @seven.png ${address}\ncurl -F file=@seven.png ${address}`;

function element(name, text) {
  const node = document.createElement(name);
  node.textContent = text;
  return node;
}

function fields(schema, schemas) {
  const name = schema?.$ref?.split("/").pop();
  if (!name) return schema?.items ? `list of ${fields(schema.items, schemas)}` : "";
  const parts = Object.entries(schemas[name].properties).map(([field, type]) => {
    const inner = type.items?.$ref ? `: ${fields(type.items, schemas)}` : "";
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
      for (const parameter of operation.parameters ?? []) {
        const kinds = parameter.schema.enum ?? [parameter.schema.type ?? "text"];
        section.append(element("p", `?${parameter.name}= ${kinds.join(" | ")}`));
      }
      const schema = Object.values(operation.responses)[0].content?.["application/json"]?.schema;
      const text = fields(schema, api.components.schemas);
      if (text) section.append(element("p", `response: ${text}`));
      $("paths").append(section);
    }
  }
}
list();
