/** The release that this is: in `chaperone --version`, audit records and metrics. A test holds it to package.json. */
export const version = '0.1.0'
